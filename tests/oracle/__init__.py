"""An independent model of events, calls, the cleanup and rating, and histories on which the database must agree with it."""
