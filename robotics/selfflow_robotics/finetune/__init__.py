"""Fine-tuning a joint transformer on robot episodes: data, batches of robot tasks, the run, offline metrics."""
