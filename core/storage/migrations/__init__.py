"""How the database came to be: one readable file per release under `versions`, never edited once released."""
