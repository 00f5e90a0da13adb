"""Read what trtexec prints and exports."""
