"""HTTP: one file a resource. Routes check, hand on and answer; they compute nothing."""
