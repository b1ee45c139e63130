"""The page of a run: what a run left behind, made ready to be looked at. Reads run folders, changes none."""
