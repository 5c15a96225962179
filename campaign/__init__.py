"""Hostile clients and a long run against real server processes on loopback: `campaign.clients`, `campaign.soak`."""
