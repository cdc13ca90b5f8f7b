"""Decisions, pure: specification and facts in, plan with reasons out."""
