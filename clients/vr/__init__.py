"""Faces for VR and games: web/ (three.js), unity/ (C#), bridges/ (VMC, Live Link Face, VTube Studio)."""
