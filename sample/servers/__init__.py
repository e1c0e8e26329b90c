"""The servers that the sample brings along: real ones from wheels, on the loopback address, thrown away afterwards."""
