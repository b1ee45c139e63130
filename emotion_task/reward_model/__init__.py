"""Makes the reasoning reward model: its dimensions, graded data, training and calibration."""
