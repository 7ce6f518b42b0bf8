"""The command line: parse, ask, render. Imports are lazy, because people wait for them."""
