using System.Text;

namespace Liveface
{
    public static class Spelling
    {
        /// <summary>"EyeBlink_L", "eyeBlinkLeft", "Face.eye_blink_left" → "eyeblinkleft".</summary>
        public static string Plain(string name)
        {
            name = name.Substring(name.LastIndexOf('.') + 1);
            if (name.Length > 2 && (name.EndsWith("L") || name.EndsWith("R")))
            {
                var stem = name.Substring(0, name.Length - 1);
                if (stem.EndsWith("_") || char.IsLower(stem[stem.Length - 1])) name = stem + (name.EndsWith("L") ? "Left" : "Right");
            }
            var plain = new StringBuilder();
            foreach (var c in name)
                if (c != '_' && c != ' ' && c != '-') plain.Append(char.ToLowerInvariant(c));
            return plain.ToString();
        }
    }
}
