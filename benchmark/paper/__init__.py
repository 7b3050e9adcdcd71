"""The paper's reported numbers and its tables and figures as replays."""
