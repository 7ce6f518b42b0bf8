"""The API: parse, authorise, render. It holds no rules."""
