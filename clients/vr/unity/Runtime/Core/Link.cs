// The socket under a conversation: System.Net.WebSockets, one task that reads, one that writes. Plain .NET, no Unity.
// On WebGL, where .NET has no sockets, feed Conversation from a browser websocket instead.

using System;
using System.Collections.Concurrent;
using System.IO;
using System.Net.WebSockets;
using System.Text;
using System.Threading;
using System.Threading.Tasks;

namespace Liveface
{
    public sealed class Link : IDisposable
    {
        const int UnsentMost = 256;

        readonly ClientWebSocket socket = new ClientWebSocket();
        readonly CancellationTokenSource over = new CancellationTokenSource();
        readonly ConcurrentQueue<byte[]> arrived = new ConcurrentQueue<byte[]>();
        readonly BlockingCollection<ArraySegment<byte>> unsent = new BlockingCollection<ArraySegment<byte>>(UnsentMost);

        public readonly Conversation Conversation = new Conversation();

        /// <summary>A close code of PROTOCOL.md once the server has closed; 0 before.</summary>
        public int CloseCode { get; private set; }
        public string CloseReason { get; private set; }
        public bool Open { get { return socket.State == WebSocketState.Open; } }

        /// <summary>Connects, says hello and keeps reading. Throws when there is no server or it does not speak avatar.v1.</summary>
        public async Task Connect(string url, string hello)
        {
            socket.Options.AddSubProtocol(Wire.Subprotocol);
            await socket.ConnectAsync(new Uri(url), over.Token).ConfigureAwait(false);
            await Send(new ArraySegment<byte>(Encoding.UTF8.GetBytes(hello)), WebSocketMessageType.Text).ConfigureAwait(false);
            _ = Task.Run(Read);
            _ = Task.Run(Write);
        }

        /// <summary>Call it once a frame: what has arrived goes into the conversation, on your own thread.</summary>
        public void Poll()
        {
            byte[] message;
            while (arrived.TryDequeue(out message)) Conversation.Receive(message);
        }

        /// <summary>Sound, s16 mono. False when it was not taken: not started yet, or the network stands still.</summary>
        public bool Speak(short[] pcm, int offset, int count, bool end = false)
        {
            if (!Open) return false;
            var message = Conversation.Speak(pcm, offset, count, end);
            return message != null && unsent.TryAdd(new ArraySegment<byte>(message));
        }

        public void Interrupt() { Tell(Conversation.Interrupt()); }

        /// <summary>Any JSON event.</summary>
        public void Tell(string text) { unsent.TryAdd(new ArraySegment<byte>(Encoding.UTF8.GetBytes(text))); }

        public void Dispose()
        {
            over.Cancel();
            socket.Dispose();
        }

        async Task Read()
        {
            var buffer = new byte[16384];
            var message = new MemoryStream();
            try
            {
                while (true)
                {
                    var got = await socket.ReceiveAsync(new ArraySegment<byte>(buffer), over.Token).ConfigureAwait(false);
                    if (got.MessageType == WebSocketMessageType.Close)
                    {
                        CloseReason = socket.CloseStatusDescription ?? "";
                        CloseCode = (int)(socket.CloseStatus ?? WebSocketCloseStatus.Empty);
                        return;
                    }
                    message.Write(buffer, 0, got.Count);
                    if (!got.EndOfMessage) continue;
                    arrived.Enqueue(message.ToArray());
                    message.SetLength(0);
                }
            }
            catch (Exception lost) when (lost is WebSocketException || lost is IOException || lost is OperationCanceledException || lost is ObjectDisposedException)
            {
                CloseReason = lost.Message;
                CloseCode = 1006;
            }
        }

        async Task Write()
        {
            try
            {
                foreach (var message in unsent.GetConsumingEnumerable(over.Token))
                {
                    var text = message.Array[message.Offset] == (byte)'{';
                    await Send(message, text ? WebSocketMessageType.Text : WebSocketMessageType.Binary).ConfigureAwait(false);
                }
            }
            catch (Exception lost) when (lost is WebSocketException || lost is IOException || lost is OperationCanceledException || lost is ObjectDisposedException)
            {
                CloseReason = CloseReason ?? lost.Message;
            }
        }

        Task Send(ArraySegment<byte> message, WebSocketMessageType type)
        {
            return socket.SendAsync(message, type, true, over.Token);
        }
    }
}
