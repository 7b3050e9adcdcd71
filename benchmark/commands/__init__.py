"""The commands, one file each: its arguments (``add``) and what it does. Only the standard library is imported until a
command runs."""
