"""The golden cases: outputs of the official codes, read and rebuilt as schedules."""
