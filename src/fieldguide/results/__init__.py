"""The one reader of what a revision holds, in the workspace, Git, DVC's cache or a remote."""
