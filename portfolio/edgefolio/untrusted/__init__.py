"""Text and documents from strangers: bounded before they are used, harmless where they are shown."""
