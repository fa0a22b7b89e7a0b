"""Generated wire messages, in a descriptor pool of their own. No hand-written code beside loader and generator."""
