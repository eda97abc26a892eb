"""Images beyond one machine: what is read by many processes, and the proof that none was lost."""
