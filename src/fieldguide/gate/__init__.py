"""The regression gate: is a model worse than another, by more than chance and tolerance?"""
