"""Values, protocols, errors, plug-ins and the machine: standard library and numpy only."""
