"""What a result is shown with: tables, sentences and plots as data, and their rendering as text. ``html/`` makes pages of them."""
