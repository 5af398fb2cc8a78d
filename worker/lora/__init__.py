"""LoRA exactly as PEFT defines it: checkpoints, memory, and the terms of a batch."""
