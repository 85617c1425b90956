"""Folders of cases: score them, compare results, choose the best configuration, look at the foreground balance."""
