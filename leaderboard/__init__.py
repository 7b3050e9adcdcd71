"""Leaderboard: ranking with ties and the static site."""
