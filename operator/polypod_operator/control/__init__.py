"""From what is seen to calls: the controller, its kopf handlers, and what they ask others for."""
