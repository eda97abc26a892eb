"""The server under load and under attack, beside other servers. Run these from the project's root."""
