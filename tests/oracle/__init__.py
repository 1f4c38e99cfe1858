"""An independent model of the rules R1 to R7, and the histories on which the database must agree with it."""
