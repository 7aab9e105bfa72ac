// The Unity package's core, without Unity: golden vectors, then a conversation with a running server.
//   mono check.exe golden.json [ws://127.0.0.1:PORT/v1/stream]

using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.IO;
using System.Linq;
using System.Threading;
using Liveface;

static class Check
{
    static int failed;

    static void That(bool good, string what)
    {
        if (good) return;
        failed++;
        Console.WriteLine("FAILED " + what);
    }

    static void Near(float[] a, float[] b, string what, float within = 1e-6f)
    {
        That(a.Length == b.Length && a.Zip(b, (x, y) => Math.Abs(x - y) <= within).All(good => good), what);
    }

    static byte[] Bytes(string hex)
    {
        return Enumerable.Range(0, hex.Length / 2).Select(i => Convert.ToByte(hex.Substring(2 * i, 2), 16)).ToArray();
    }

    static string Hex(IEnumerable<byte> bytes) { return string.Concat(bytes.Select(b => b.ToString("x2"))); }

    static float[] Floats(object list) { return ((List<object>)list).Select(x => (float)(double)x).ToArray(); }

    static IEnumerable<Dictionary<string, object>> Vectors(Dictionary<string, object> golden, string name)
    {
        return ((List<object>)golden[name]).Cast<Dictionary<string, object>>();
    }

    static void Golden(Dictionary<string, object> golden)
    {
        foreach (var vector in Vectors(golden, "headers"))
        {
            var name = vector.Text("name");
            var frame = Wire.ParseFrame(Bytes(vector.Text("hex")));
            That(frame.Type == vector.Number("type") && (int)frame.Flags == vector.Number("flags"), name + ": type and flags");
            That(frame.Seq == vector.Number("seq") && frame.Epoch == vector.Number("epoch"), name + ": seq and epoch");
            That(frame.PtsUs == long.Parse(vector.Text("pts_us")), name + ": date");
            That(Hex(frame.Payload) == vector.Text("payload_hex"), name + ": payload");
            if (frame.Type != 1) continue;
            var payload = Bytes(vector.Text("payload_hex"));
            var pcm = new short[payload.Length / 2];
            Buffer.BlockCopy(payload, 0, pcm, 0, payload.Length);
            var packed = Wire.PackSound(pcm, 0, pcm.Length, frame.Seq, frame.Epoch, frame.PtsUs, (frame.Flags & FrameFlags.SegmentEnd) != 0);
            That(Hex(packed) == vector.Text("hex"), name + ": packed");
        }
        foreach (var vector in Vectors(golden, "refused"))
        {
            try
            {
                Wire.ParseFrame(Bytes(vector.Text("hex")));
                That(false, vector.Text("name") + " was not refused");
            }
            catch (WireException) { }
        }
        foreach (var vector in Vectors(golden, "faces"))
        {
            var name = vector.Text("name");
            var frame = Wire.ParseFrame(Bytes(vector.Text("hex")));
            var face = Wire.ParseFace(frame, vector.Texts("names").Length, (int)vector.Number("viseme_count"));
            Near(face.Values, Floats(vector["weights"]), name + ": weights");
            Near(face.Rotation, Floats(vector["rotation"]), name + ": rotation");
            Near(face.Position, Floats(vector["position"]), name + ": position");
            Near(face.Gaze, Floats(vector["gaze"]), name + ": gaze");
            Near(face.Visemes, Floats(vector["visemes"]), name + ": visemes");
            That(face.Speaking == (bool)vector["speaking"] && face.SegmentEnd == (bool)vector["segment_end"], name + ": flags");
        }
        foreach (var vector in Vectors(golden, "points"))
        {
            var points = Wire.ParsePoints(Wire.ParseFrame(Bytes(vector.Text("hex"))));
            var expected = ((List<object>)vector["points"]).Select(Floats).ToArray();
            That(points.Length == expected.Length, "points: count");
            for (var i = 0; i < points.Length; i++) Near(points[i], expected[i], "points: " + i);
        }
        foreach (var vector in Vectors(golden, "slerp"))
        {
            var mixed = new float[4];
            Sampler.Slerp(Floats(vector["a"]), Floats(vector["b"]), (float)vector.Number("t"), mixed);
            var dot = mixed.Zip(Floats(vector["expect"]), (x, y) => x * y).Sum();
            That(Math.Abs(Math.Abs(dot) - 1) < 1e-5, "slerp: " + vector.Text("name"));
        }
        var sampling = golden.Inner("sampling");
        var sampler = new Sampler();
        var shown = new Face();
        That(!sampler.At(0, shown), "an empty sampler has no face");
        foreach (var vector in Vectors(sampling, "faces"))
            sampler.Push(new Face { PtsUs = (long)vector.Number("pts_us"), Values = new[] { (float)vector.Number("value") }, Visemes = new float[0] });
        foreach (var vector in Vectors(sampling, "samples"))
        {
            sampler.At(vector.Number("pts_us"), shown);
            Near(shown.Values, new[] { (float)vector.Number("value") }, "sample at " + vector.Number("pts_us"));
        }
        for (var i = 0; i < 1000; i++) sampler.Push(new Face { PtsUs = 200000 + 40000 * i, Values = new float[1], Visemes = new float[0] });
        That(sampler.Count <= 27, "a sampler keeps a second");
    }

    static void Small()
    {
        That(Wire.IsOver(0xFFFFFFFF, 0) && !Wire.IsOver(0, 0xFFFFFFFF) && !Wire.IsOver(3, 3), "epochs wrap");
        foreach (var spelled in new[] { "eyeBlinkLeft", "EyeBlinkLeft", "eyeBlink_L", "Face.eye_blink_left", "eyeBlinkL" })
            That(Spelling.Plain(spelled) == "eyeblinkleft", "spelling of " + spelled);
        That(Spelling.Plain("mouthFunnel") == "mouthfunnel", "a last letter is no side");
        foreach (var broken in new[] { "", "{", "[]", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{\"a\":\"", "{} {}", "{\"a\":tru}", "{\"a\":\"\\u12\"}", "{\"a\":" + new string('[', 5000) })
        {
            try
            {
                Json.ParseObject(broken);
                That(false, "this is no JSON: " + broken);
            }
            catch (WireException) { }
        }
        var said = Json.ParseObject(" {\"a\": \"\\u00e9\\n\\\"x\", \"b\": [1, -2.5e3, true, null], \"c\": {}} ");
        That(said.Text("a") == "é\n\"x", "JSON strings");
        That((double)((List<object>)said["b"])[1] == -2500, "JSON numbers");
        That(Json.ParseObject("{\"a\":" + Json.Quote("q\"\\\u0001é") + "}").Text("a") == "q\"\\\u0001é", "JSON quoting");

        var voice = new Voice(1000, 10);
        var heard = new float[4];
        That(voice.HeadUs == -1, "no sound, no date");
        voice.Push(new[] { 1f, 2f, 3f, 4f, 5f }, 40000);
        voice.Read(heard, 2);
        That(heard.All(x => x == 0) && voice.HeadUs == 40000, "silence until the buffer is filled");
        voice.Push(Enumerable.Range(6, 10).Select(x => (float)x).ToArray(), 45000);
        voice.Read(heard, 2);
        Near(heard, new[] { 1f, 1f, 2f, 2f }, "all channels alike");
        That(voice.HeadUs == 42000, "the head counts what was handed over");
        voice.Hush();
        voice.Read(heard, 1);
        That(heard.All(x => x == 0), "hushed");
    }

    static void Talk(string url)
    {
        var rate = 16000;
        var link = new Link();
        var voice = new Voice(16000);
        var events = new List<string>();
        long lastSound = -1;
        link.Conversation.Said += (type, said) => events.Add(type);
        link.Conversation.Sound += (samples, pts) =>
        {
            That(samples.Length == 640, "40 ms of sound");
            That(pts > lastSound, "sound in order");
            lastSound = pts;
            voice.Push(samples, pts);
        };
        link.Connect(url, Wire.Hello("", "", rate, "burst", "arkit52", 50, 16000, null)).Wait(5000);
        Until(link, () => link.Conversation.Started, "session.started");
        That(link.Conversation.Names.Length == 52, "52 names");
        That(link.Conversation.Disclosure == "AI", "the disclosure");

        var pcm = new short[rate];
        for (var i = 0; i < pcm.Length; i++)
            for (var k = 1; k < 12; k++) pcm[i] += (short)(4000 / k * Math.Sin(2 * Math.PI * 120 * k * i / rate));
        for (var at = 0; at < pcm.Length; at += 1600) That(link.Speak(pcm, at, 1600, at + 1600 == pcm.Length), "sound is taken");
        var jaw = Array.IndexOf(link.Conversation.Names, "jawOpen");
        var most = 0f;
        var shown = new Face();
        var played = Stopwatch.StartNew();
        long taken = 0;
        Until(link, () =>
        {
            // A sound card that keeps time, however seldom this loop comes round.
            var due = played.ElapsedMilliseconds * 16 - taken;
            voice.Read(new float[due], 1);
            taken += due;
            if (link.Conversation.Faces.At(voice.HeadUs, shown)) most = Math.Max(most, shown.Values[jaw]);
            return events.Contains("speech.stopped");
        }, "the end of the speech");
        That(most > 0.05, "a mouth that opens: " + most);
        That(Math.Abs(shown.Rotation.Sum(x => x * x) - 1) < 1e-4, "a unit quaternion");

        for (var at = 0; at < pcm.Length; at += 1600) link.Speak(pcm, at, 1600);
        link.Interrupt();
        That(link.Conversation.Epoch == 1, "the client's own epoch, at once");
        Until(link, () => events.Contains("cleared"), "cleared");
        link.Tell("{\"type\":\"session.end\"}");
        Until(link, () => link.CloseCode != 0, "the close");
        That(link.CloseCode == 1000, "closed with " + link.CloseCode + " " + link.CloseReason);
        link.Dispose();

        var refused = new Link();
        refused.Connect(url, Wire.Hello("nobody", "", rate, "burst", "arkit52", 25, 0, null)).Wait(5000);
        Until(refused, () => refused.CloseCode != 0, "a refusal");
        That(refused.CloseCode == 4404, "an unknown avatar is 4404, not " + refused.CloseCode);
        refused.Poll();
        That((refused.Conversation.Error ?? "").StartsWith("unknown_avatar"), "the server's own sentence");
        refused.Dispose();
    }

    static void Until(Link link, Func<bool> condition, string what)
    {
        var watch = Stopwatch.StartNew();
        while (!condition())
        {
            if (watch.ElapsedMilliseconds > 10000)
            {
                That(false, what + " did not come; closed with " + link.CloseCode + " " + link.CloseReason);
                return;
            }
            link.Poll();
            Thread.Sleep(5);
        }
    }

    static int Main(string[] arguments)
    {
        Golden(Json.ParseObject(File.ReadAllText(arguments[0])));
        Small();
        if (arguments.Length > 1) Talk(arguments[1]);
        Console.WriteLine(failed == 0 ? "all good" : failed + " failed");
        return failed == 0 ? 0 : 1;
    }
}
