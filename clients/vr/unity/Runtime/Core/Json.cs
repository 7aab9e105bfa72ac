// Enough JSON to read what the server says. Objects become Dictionary<string, object>, arrays List<object>, numbers double.

using System;
using System.Collections.Generic;
using System.Globalization;
using System.Text;

namespace Liveface
{
    public static class Json
    {
        const int DepthMost = 32;

        public static Dictionary<string, object> ParseObject(string text)
        {
            var at = 0;
            var value = Value(text, ref at, 0);
            Blank(text, ref at);
            var said = value as Dictionary<string, object>;
            if (said == null || at != text.Length) throw new WireException("this is no JSON object");
            return said;
        }

        public static string Quote(string text)
        {
            var quoted = new StringBuilder("\"");
            foreach (var c in text)
            {
                if (c == '"' || c == '\\') quoted.Append('\\').Append(c);
                else if (c < ' ') quoted.Append("\\u").Append(((int)c).ToString("x4"));
                else quoted.Append(c);
            }
            return quoted.Append('"').ToString();
        }

        public static string Text(this Dictionary<string, object> said, string name, string missing = "")
        {
            object value;
            return said.TryGetValue(name, out value) && value is string ? (string)value : missing;
        }

        public static double Number(this Dictionary<string, object> said, string name, double missing = 0)
        {
            object value;
            return said.TryGetValue(name, out value) && value is double ? (double)value : missing;
        }

        public static Dictionary<string, object> Inner(this Dictionary<string, object> said, string name)
        {
            object value;
            return (said.TryGetValue(name, out value) ? value as Dictionary<string, object> : null) ?? new Dictionary<string, object>();
        }

        public static string[] Texts(this Dictionary<string, object> said, string name)
        {
            object value;
            var list = said.TryGetValue(name, out value) ? value as List<object> : null;
            if (list == null) return new string[0];
            return list.ConvertAll(one => one as string ?? "").ToArray();
        }

        static object Value(string text, ref int at, int depth)
        {
            if (depth > DepthMost) throw new WireException("JSON is nested too deep");
            Blank(text, ref at);
            if (at >= text.Length) throw new WireException("JSON ends too early");
            switch (text[at])
            {
                case '{': return Object(text, ref at, depth);
                case '[': return Array(text, ref at, depth);
                case '"': return String(text, ref at);
                case 't': return Word(text, ref at, "true", true);
                case 'f': return Word(text, ref at, "false", false);
                case 'n': return Word(text, ref at, "null", null);
                default: return Number(text, ref at);
            }
        }

        static Dictionary<string, object> Object(string text, ref int at, int depth)
        {
            var said = new Dictionary<string, object>();
            at++;
            Blank(text, ref at);
            if (Is(text, at, '}')) { at++; return said; }
            while (true)
            {
                Blank(text, ref at);
                if (!Is(text, at, '"')) throw new WireException("a JSON key is missing");
                var name = String(text, ref at);
                Blank(text, ref at);
                if (!Is(text, at++, ':')) throw new WireException("a JSON colon is missing");
                said[name] = Value(text, ref at, depth + 1);
                Blank(text, ref at);
                if (Is(text, at, '}')) { at++; return said; }
                if (!Is(text, at++, ',')) throw new WireException("a JSON comma is missing");
            }
        }

        static List<object> Array(string text, ref int at, int depth)
        {
            var said = new List<object>();
            at++;
            Blank(text, ref at);
            if (Is(text, at, ']')) { at++; return said; }
            while (true)
            {
                said.Add(Value(text, ref at, depth + 1));
                Blank(text, ref at);
                if (Is(text, at, ']')) { at++; return said; }
                if (!Is(text, at++, ',')) throw new WireException("a JSON comma is missing");
            }
        }

        static string String(string text, ref int at)
        {
            var said = new StringBuilder();
            for (at++; at < text.Length; at++)
            {
                var c = text[at];
                if (c == '"') { at++; return said.ToString(); }
                if (c != '\\') { said.Append(c); continue; }
                if (++at >= text.Length) break;
                switch (text[at])
                {
                    case 'n': said.Append('\n'); break;
                    case 't': said.Append('\t'); break;
                    case 'r': said.Append('\r'); break;
                    case 'b': said.Append('\b'); break;
                    case 'f': said.Append('\f'); break;
                    case 'u':
                        int code;
                        if (at + 4 >= text.Length || !int.TryParse(text.Substring(at + 1, 4), NumberStyles.HexNumber, CultureInfo.InvariantCulture, out code))
                            throw new WireException("a JSON escape is broken");
                        said.Append((char)code);
                        at += 4;
                        break;
                    default: said.Append(text[at]); break;
                }
            }
            throw new WireException("a JSON string does not end");
        }

        static object Number(string text, ref int at)
        {
            var from = at;
            while (at < text.Length && "+-0123456789.eE".IndexOf(text[at]) >= 0) at++;
            double value;
            if (!double.TryParse(text.Substring(from, at - from), NumberStyles.Float, CultureInfo.InvariantCulture, out value))
                throw new WireException("this is no JSON value");
            return value;
        }

        static object Word(string text, ref int at, string word, object value)
        {
            if (string.CompareOrdinal(text, at, word, 0, word.Length) != 0) throw new WireException("this is no JSON value");
            at += word.Length;
            return value;
        }

        static bool Is(string text, int at, char c) { return at < text.Length && text[at] == c; }

        static void Blank(string text, ref int at)
        {
            while (at < text.Length && (text[at] == ' ' || text[at] == '\n' || text[at] == '\r' || text[at] == '\t')) at++;
        }
    }
}
