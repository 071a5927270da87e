"""Data sets: where they come from, how they are kept, split, dequantized and handed to training in batches."""
