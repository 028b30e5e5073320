"""Where people come in: the survey, the start page, the commands. Wires the parts together."""
