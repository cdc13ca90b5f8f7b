"""Rehearsal: hosts on one machine, a simulated engine, faults, and a soak."""
