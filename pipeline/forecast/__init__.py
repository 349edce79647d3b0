"""`wit harvest --dry-run`: what a run will take, from a small sample of its inputs."""
