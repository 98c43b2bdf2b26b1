"""How dates are written for people: sortable, with seconds and the time zone."""
