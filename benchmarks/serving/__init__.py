"""The server under load and under attack, beside other servers."""
