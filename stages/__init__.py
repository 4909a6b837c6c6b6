"""The work: one room per stage; what several rooms share stands at the door."""
