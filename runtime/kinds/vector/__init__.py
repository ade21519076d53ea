"""The kind ``vector``: named values with a unit each: landmarks, the box of one object, angles."""
