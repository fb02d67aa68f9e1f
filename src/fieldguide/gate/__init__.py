"""The regression gate: is a model worse than another one, by more than chance and tolerance?"""
