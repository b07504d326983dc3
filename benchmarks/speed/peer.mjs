// Presence as a few lines of Node.js: each join is told to everybody.
import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer();
const io = new Server(http);
io.on("connection", (socket) => {
  socket.on("join", () => io.emit("joined", { id: socket.id, name: socket.handshake.auth.user ?? socket.id }));
});
http.listen(0, "127.0.0.1", () => console.log(http.address().port));
