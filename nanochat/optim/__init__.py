"""The optimizer: Muon and AdamW, schedules, and sharding over processes."""
