"""An independent model of R1 to R7 and of rating, and histories on which the database must agree with it."""
