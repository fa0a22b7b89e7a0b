"""The flight-delay model: reviewed source of its versions, and the tour that serves them. No model bytes."""
