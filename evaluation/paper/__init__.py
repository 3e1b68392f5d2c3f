"""The paper's experiments on complete-data matrices: its tables and figures, remade."""
