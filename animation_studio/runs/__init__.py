"""Running prompts on a ComfyUI server and recording how a picture was made.

In: a prompt in ComfyUI's API form and a server's address. Out: progress while it runs, the files
that its nodes saved, or one of the errors under RunError. Modules: `client` (the HTTP and WebSocket
client), `messages` (what ComfyUI's answers mean), `command` (`python -m
animation_studio.runs.client`).
"""
