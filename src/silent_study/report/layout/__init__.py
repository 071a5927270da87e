"""The tables as people read them: numbers turned into text, in the paper's layout where it has one."""
