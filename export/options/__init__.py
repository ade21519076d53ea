"""What ``mtl-export`` was asked for, as plain data that is checked when it is made. Parsing the command line stands above."""
