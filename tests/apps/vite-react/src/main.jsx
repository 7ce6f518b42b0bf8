import { StrictMode, useState } from 'react';
import { createRoot } from 'react-dom/client';

function Counter() {
  const [count, setCount] = useState(0);
  return <button onClick={() => setCount(count + 1)}>{`${import.meta.env.VITE_GREETING ?? 'Clicked'}: ${count}`}</button>;
}

createRoot(document.getElementById('root')).render(<StrictMode><Counter /></StrictMode>);
