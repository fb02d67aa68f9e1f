"""The commands of `fieldguide`, a module a group. They import heavy libraries when they run."""
