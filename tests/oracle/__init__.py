"""An independent model of events, calls, cleanup and rating, and histories on which the database must agree with it."""
