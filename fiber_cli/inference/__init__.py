"""A checkpoint on a user's own pictures and texts: `Fiber`, and what its commands print, draw and search."""
