"""Files that users bring: tables of rows, data sets as the Hugging Face hub keeps them, and sound."""
